from __future__ import annotations

import pytest

from deepforge.settings import build
from deepforge.storage.s3 import S3Adapter, S3Settings
from deepforge.testing.storage import Opener, StorageContract
from seaweed import Seaweed


class TestS3(StorageContract):
    @pytest.fixture
    def opener(self, seaweed: Seaweed, bucket: str) -> Opener:
        return lambda: S3Adapter(build(S3Settings, seaweed.settings(bucket)))
