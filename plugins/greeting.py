"""The agent speaks first: it says the `greeting:` of its persona, word for word, as soon as the call begins.

Off until `plugins: {options: {greeting: {enabled: true}}}`. A persona without a greeting begins as the model likes.
"""

import msgspec

from core import SessionControl, hookimpl


class Plugin:
    """Gives each session the greeting of its persona, before anybody can speak."""

    class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        """The plugin's block in config.yaml."""

        enabled: bool = False

    def __init__(self, options: Options) -> None:
        self.enabled = options.enabled

    @hookimpl
    def open_session(self, control: SessionControl) -> None:
        if control.persona.greeting:
            control.say(control.persona.greeting)
