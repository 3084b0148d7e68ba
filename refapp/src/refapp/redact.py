"""Takes secrets out of text on its way to the log: the last line of defence, not the first."""

import json
import re

SHAPES = (
    r"eyJ[\w-]{4,}\.eyJ[\w-]{4,}\.[\w-]*",  # a JWT
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
        return self._pattern.sub("[hidden]", text)


redact = Redactor()
