import subprocess

import pytest

from eagle import provenance


@pytest.fixture
def repository(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "_ROOT", tmp_path)

    def git(*arguments):
        identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        return subprocess.run(["git", *identity, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)

    return tmp_path, git


def test_code_version__names_the_commit_and_whether_it_was_changed(repository):
    folder, git = repository
    git("init", "--quiet")
    (folder / "code.py").write_text("a = 1\n")
    git("add", "code.py")
    git("commit", "--quiet", "--message", "first")
    git("tag", "--annotate", "v1", "--message", "a tag does not stand in for the commit")
    commit = git("rev-parse", "--short", "HEAD").stdout.strip()
    assert provenance.code_version().endswith(f"({commit})")
    (folder / "code.py").write_text("a = 2\n")
    assert provenance.code_version().endswith(f"({commit}, changed)")


def test_code_version__an_installed_copy_has_no_commit(repository):
    assert "(" not in (provenance.code_version() or "")
