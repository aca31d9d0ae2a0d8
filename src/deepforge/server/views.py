"""What a single view shows besides the thing itself: an execution's artifacts, projects' names."""

from __future__ import annotations
