"""Tests against servers that others wrote. `.ci/nightly` installs the servers and runs these tests."""
