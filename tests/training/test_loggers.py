import pytest

from eagle.config.schema import TrainConfig
from eagle.config.validation import validated
from eagle.training.loggers import finish, logged_in_to_wandb, make_loggers


@pytest.fixture
def no_login(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_HOST", "WANDB_BASE_URL", "WANDB_CONFIG_DIR", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_wandb_login__is_looked_up_and_never_asked_for(no_login, monkeypatch, tmp_path):
    assert not logged_in_to_wandb()
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password " + "0" * 40)
    (tmp_path / ".netrc").chmod(0o600)
    assert logged_in_to_wandb()
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert not logged_in_to_wandb()
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert logged_in_to_wandb()


def test_make_loggers__wandb_without_login_writes_offline_and_says_so(no_login, tmp_path, caplog):
    logger = make_loggers(validated(TrainConfig, {"wandb": True}), tmp_path / "run")[1]
    assert "nobody is logged in to https://api.wandb.ai" in caplog.text
    logger.log_metrics({"loss/total": 1.0}, step=0)
    logger.experiment.finish()
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*"))


def test_make_loggers__a_resumed_run_is_the_same_wandb_run(no_login, tmp_path):
    cfg = validated(TrainConfig, {"wandb": True})
    made = []
    for steps_done in (0, 3, 0):
        loggers = make_loggers(cfg, tmp_path / "run", steps_done)
        made.append(loggers[1])
        finish(loggers)
    first, resumed, another = made
    assert first.version == resumed.version != another.version
