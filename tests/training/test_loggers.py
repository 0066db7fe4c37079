import pytest
import wandb

from eagle.config.schema import TrainConfig
from eagle.config.validation import validated
from eagle.training.loggers import make_loggers


@pytest.fixture
def no_login(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_CONFIG_DIR", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_make_loggers__a_resumed_run_is_the_same_wandb_run_and_nobody_is_asked_to_log_in(no_login, tmp_path, caplog):
    cfg = validated(TrainConfig, {"wandb": True})
    made = []
    for steps_done in (0, 3, 0):
        loggers = make_loggers(cfg, tmp_path / "run", steps_done)
        made.append(loggers[1])
        wandb.finish()
    first, resumed, another = made
    assert first.version == resumed.version != another.version
    assert "nobody is logged in to https://api.wandb.ai" in caplog.text
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*"))


@pytest.mark.parametrize("where", ["netrc", "environment"])
def test_make_loggers__with_a_login_wandb_is_online(no_login, monkeypatch, tmp_path, where, caplog):
    monkeypatch.setattr("eagle.training.loggers.WandbLogger.log_hyperparams", lambda *_: None)
    if where == "netrc":
        (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password " + "0" * 40)
    else:
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    logger = make_loggers(validated(TrainConfig, {"wandb": True}), tmp_path / "run")[1]
    assert not logger._offline
    assert caplog.text == ""
