"""Fields and validators as strict as JSON Schema, which the document promises, and no stricter."""

from marshmallow import ValidationError, fields, validate


class Text(validate.Regexp):
    """Text of a pattern, and of characters that exist: half a surrogate pair is none."""

    def __call__(self, value):
        """Return the value, or raise ValidationError."""
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValidationError(self.error) from error
        return super().__call__(value)


# PostgreSQL takes no NUL, and no text of ours needs the others.
TEXT = Text(r"^[^\x00-\x1f\x7f]+\Z", error="Has control characters.")


class Flag(fields.Boolean):
    """true or false: marshmallow's own takes 1, "on" and others for them."""

    def _deserialize(self, value, attr, data, **more):
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class Whole(fields.Integer):
    """A number without a fraction, 5.0 among them; no text that looks like one."""

    def __init__(self, **more):
        super().__init__(strict=True, **more)

    def _validated(self, value):
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return super()._validated(value)
