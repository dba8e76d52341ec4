"""Stand-in for Slicer's `slicer.i18n`: no language but the source's."""


def tr(text: str) -> str:
    """The text itself."""
    return text


def translate(context: str, text: str) -> str:
    """The text itself."""
    return text
