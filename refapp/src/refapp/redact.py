"""Takes secrets out of text on its way to the log: the last line of defence, not the first."""

import json
import re

# Time must not grow faster than a text: addresses are other people's, and 16 KB each. A word with
# a beginning of a token at each character is therefore read to its end once, from where it starts,
# and `++` gives nothing back.
TOKEN = re.compile(  # a JWT, whatever stands before it in the word: an escaped newline, `%3D`
    r"(?<![\w-])(?=[\w-]++\.eyJ[\w-]{4,}+\.)([\w-]*?)eyJ[\w-]{4,}+\.eyJ[\w-]{4,}+\.[\w-]*"
)
SHAPES = (
    r"(?<=://)[^/\s:@\"']*:[^/\s@\"']+(?=@)",  # user and password in an address
    r"(?i:(?<=X-Amz-Signature=)[\w%]+)",  # a presigned address
    r"(?i:(?<=\bbearer )[\w.~+/-]{8,}=*)",
    r"(?i:(?<=\bbasic )[\w+/-]{8,}=*)",
    r"\$argon2\w+\$[\w=,$+/.]+",
)
SHORTEST = 8  # characters; a shorter value would take words out of every line


class Redactor:
    """Replaces what looks like a secret, and what is known to be one."""

    def __init__(self):
        self.know(())

    def know(self, values):
        """Hide these values from now on, however JSON writes them."""
        written = {json.dumps(value)[1:-1] for value in values if value and len(value) >= SHORTEST}
        longest_first = sorted(written, key=len, reverse=True)
        self._pattern = re.compile("|".join([*map(re.escape, longest_first), *SHAPES]))

    def __call__(self, text):
        """Return the text without them."""
        return self._pattern.sub("[hidden]", TOKEN.sub(r"\1[hidden]", text))


redact = Redactor()
