"""Lets the API pages name the members of an enumeration in one line, where each has nothing more to say."""

from typing import Any

import griffe


class EnumMembers(griffe.Extension):
    """Adds the members of an enumeration to what is said of it."""

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Add a line to the docstring of an enumeration."""
        if not any(str(base).endswith("Enum") for base in cls.bases) or cls.docstring is None:
            return
        members = [f"`{name}`" for name, member in cls.members.items() if member.is_attribute and name.isupper()]
        cls.docstring.value += f"\n\nOne of {', '.join(members)}."
