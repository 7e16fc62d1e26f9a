"""What every suite shares: how hypothesis searches."""

from __future__ import annotations

import os

from hypothesis import settings

# A deadline would time the machine, not the code. In CI the same examples each time: a red run is then about
# the change that it ran for; everywhere else hypothesis goes on looking for new ones.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")
