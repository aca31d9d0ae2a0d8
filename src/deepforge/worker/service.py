"""The systemd unit that keeps a worker running."""

from __future__ import annotations

from typing import Sequence

_UNIT = """\
# Save this as ~/.config/systemd/user/deepforge-worker.service, then:
#   install -m 600 /dev/stdin %(token)s      (paste the access token, press Enter and Ctrl-D)
#   systemctl --user daemon-reload
#   systemctl --user enable --now deepforge-worker
#   loginctl enable-linger                   (so that it runs while you are logged out)
[Unit]
Description=DeepForge worker
Wants=network-online.target
After=network-online.target

[Service]
ExecStart=%(command)s
Restart=always
RestartSec=15
# Stopping lets running jobs end first. What still runs then goes on without the worker, which finds
# it again at its next start: so only the worker itself is ever killed.
KillMode=process
TimeoutStopSec=1h

[Install]
WantedBy=default.target
"""


def unit(command: Sequence[str], token_file: str) -> str:
    """The text of a unit that runs this command."""
    return _UNIT % {
        "command": " ".join(_quoted(word) for word in command),
        "token": token_file,
    }


def _quoted(word: str) -> str:
    escaped = word.replace("%", "%%").replace("$", "$$").replace("\\", "\\\\").replace('"', '\\"')
    plain = escaped == word and word and not any(letter in " \t'" for letter in word)
    return word if plain else '"%s"' % escaped
