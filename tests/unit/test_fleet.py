"""Workers, beat and Flower: what Celery is told, and what whoever asks a worker is told."""

from __future__ import annotations

import ssl
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.worker.control import Panel
from structlog.testing import capture_logs

from tasks.answers import LONGEST, StepTask, TaskFailed, WrongKey, describe_ending
from tasks.configuration import QUEUES, SOFT_SHUTDOWN_S, celery_options
from tasks.keys import require_key
from tasks.programs import Queue, beat_words, flower_words, worker_words
from validator.ports.queue import Task
from validator.protocol.errors import ConfigError
from validator.redis_link import RedisLink, make_redis_link
from validator.settings import Settings

SECRET_URL = "https://user:s3cret@rpc.example/v2/key"
INSTANCE = "window:1700000000000"


def settings(**given: Any) -> Settings:
    needed: dict[str, Any] = {
        "network_file": "network.toml",
        "rpc_urls": "https://a.example",
        "gateway_urls": "https://b.example",
    }
    return Settings(_env_file=None, **needed, **given)


def secret(path: Path, text: str) -> Path:
    path.touch(0o600)
    path.write_text(text)
    return path


def test_each_queue_has_a_worker_of_its_own_kind() -> None:
    assert set(Queue) == set(QUEUES)
    for queue in Queue:
        words = worker_words([queue])
        assert words[words.index("-Q") + 1] == queue
        assert words[words.index("-n") + 1] == f"{queue}@%h"
        assert words[words.index("-P") + 1] == ("threads" if queue == Queue.ROUND else "prefork")
    assert "--max-memory-per-child" in worker_words([Queue.COLLECT])


def test_a_worker_of_all_queues_is_one_process_of_threads() -> None:
    words = worker_words([], name="one")
    assert words[words.index("-Q") + 1] == "collect,round,bundle,report"
    assert words[words.index("-P") + 1] == "threads"
    assert words[words.index("-n") + 1] == "one@%h"
    words = worker_words([Queue.COLLECT], children=3)
    assert words[words.index("-c") + 1] == "3"


def test_no_program_prints_a_banner_and_beat_keeps_no_file() -> None:
    for words in (worker_words([]), beat_words(), flower_words("127.0.0.1", 1)):
        assert words[0] == "--quiet"
    assert beat_words()[-2:] == ["--pidfile", ""]
    assert flower_words("127.0.0.1", 1, "f.db")[-2:] == ["--persistent=True", "--db=f.db"]


def test_a_killed_worker_loses_nothing_and_a_task_ends_before_it_would_run_twice() -> None:
    options = celery_options(RedisLink("redis://r"), 5.0)
    assert options["task_acks_late"]
    assert options["task_reject_on_worker_lost"]
    assert options["worker_prefetch_multiplier"] == 1
    assert options["task_soft_time_limit"] < options["task_time_limit"] < options["visibility_timeout"]
    assert options["broker_transport_options"]["visibility_timeout"] == options["visibility_timeout"]
    assert 0 < SOFT_SHUTDOWN_S < 30  # the grace of compose.yaml
    assert options["accept_content"] == ["json"]
    assert options["task_serializer"] == options["event_serializer"] == "json"
    assert options["result_backend"] is None
    assert options["task_ignore_result"]
    assert not options["task_create_missing_queues"]


def test_ticks_are_not_told_to_flower_and_all_else_is() -> None:
    text = Path("tasks/rounds.py").read_text()
    assert "name=Task.ROUND_DUE.value, send_events=False" in text
    assert text.count("send_events") == 1


# --- answers --------------------------------------------------------------------------------------------


@pytest.fixture
def task() -> Any:
    app = Celery("test", broker="memory://", task_cls=StepTask)

    @app.task(name="window.collect")  # type: ignore[untyped-decorator]
    def collect(start_ms: str) -> str:
        require_key(Task.WINDOW_COLLECT, start_ms)
        return describe_ending("collected", "7 messages")

    return collect


def test_a_task_answers_in_one_line(task: Any) -> None:
    assert task("1700000000000") == "collected: 7 messages"


@pytest.mark.parametrize("words", [(), ("1", "2"), ("yesterday",), (7,), (None,), ("9" * 40,)])
def test_wrong_words_are_refused_in_a_sentence(task: Any, words: tuple[Any, ...]) -> None:
    assert task(*words).startswith("refused: ")


@pytest.mark.parametrize(
    ("task", "good", "bad"),
    [
        (Task.ROUND_ADVANCE, INSTANCE, "window"),
        (Task.ROUND_ADVANCE, "late:7", "1700000000000"),
        (Task.ROUND_OBTAIN, f"{INSTANCE}/set/{'00' * 32}/", INSTANCE),
        (Task.BUNDLE_SEAL, "7", "-7"),
        (Task.ROUND_DUE, "", "x" * 81),
    ],
)
def test_each_task_knows_its_key(task: Task, good: str, bad: str) -> None:
    require_key(task, good)
    with pytest.raises(WrongKey, match=task.value):
        require_key(task, bad)


def test_a_failed_task_shows_no_credentials_of_its_causes() -> None:
    app = Celery("test", broker="memory://", task_cls=StepTask)

    @app.task(name="bundle.upload")  # type: ignore[untyped-decorator]
    def upload(url: str) -> None:
        try:
            raise OSError(f"no route to {url}")
        except OSError as error:
            raise RuntimeError("not sent") from error

    with pytest.raises(TaskFailed, match="RuntimeError: not sent") as failed, capture_logs() as logs:
        upload(SECRET_URL)
    assert "s3cret" not in "".join(traceback.format_exception(failed.value))
    assert [entry["event"] for entry in logs] == ["task.failed"]
    with pytest.raises(RuntimeError, match="not sent"):
        upload("nowhere")


def test_an_ending_is_shown_whole_without_credentials_and_bounded() -> None:
    assert describe_ending("agreed", "") == "agreed"
    reason = "block 12 is not final yet, " * 12
    assert describe_ending("not yet", reason) == f"not yet: {reason.strip()}"
    assert describe_ending("not yet", "https://u:pw@rpc.example/key did\nnot\x1b answer") == (
        r"not yet: https://rpc.example did not\x1b answer"
    )
    assert len(describe_ending("not yet", "x" * 5_000)) == LONGEST < StepTask.resultrepr_maxsize


class Pool:
    """One that can grow."""

    num_processes = 2

    def __init__(self) -> None:
        self.changed: list[tuple[str, int]] = []

    def grow(self, n: int) -> None:
        self.changed.append(("grow", n))

    def shrink(self, n: int) -> None:
        self.changed.append(("shrink", n))


def worker_state(pool: object) -> Any:
    return SimpleNamespace(consumer=SimpleNamespace(pool=pool, _update_prefetch_count=lambda n: None))


def test_a_pool_grows_and_shrinks_but_not_to_nothing() -> None:
    pool = Pool()
    assert Panel.data["pool_grow"](worker_state(pool), n=2) == {"ok": "pool will grow by 2"}
    assert Panel.data["pool_shrink"](worker_state(pool), n=1) == {"ok": "pool will shrink by 1"}
    assert "must keep one" in Panel.data["pool_shrink"](worker_state(pool), n=2)["error"]
    assert pool.changed == [("grow", 2), ("shrink", 1)]


@pytest.mark.parametrize("n", [0, -1, 65, 10**9, "two", None, True, 1.5])
def test_a_wrong_number_is_refused_in_a_sentence(n: object) -> None:
    pool = Pool()
    assert "by a number from 1 to 64" in Panel.data["pool_grow"](worker_state(pool), n=n)["error"]
    assert not pool.changed


def test_a_pool_that_cannot_change_says_what_to_do_instead() -> None:
    assert "start the worker with --children N" in Panel.data["pool_grow"](worker_state(object()))["error"]
    assert "supervises" in Panel.data["pool_restart"](worker_state(object()))["error"]
    assert "--children N" in Panel.data["autoscale"](worker_state(object()), max=3)["error"]


# --- Redis ----------------------------------------------------------------------------------------------


def test_a_password_from_a_file_is_encoded_into_the_url(tmp_path: Path) -> None:
    given = settings(redis_url="redis://user@r:6379/1", redis_password_file=secret(tmp_path / "p", "p@ss/w:rd\n"))
    assert make_redis_link(given).url == "redis://user:p%40ss%2Fw%3Ard@r:6379/1"
    given = settings(
        database_url="postgresql+psycopg://v@db/v", database_password_file=secret(tmp_path / "d", "se#cret")
    )
    assert given.database_link() == "postgresql+psycopg://v:se%23cret@db/v"


@pytest.mark.parametrize("url", ["redis://:one@r/0", "redis+socket:///run/redis.sock"])
def test_a_password_given_twice_or_to_a_place_that_takes_none_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match=r"LOGSTORE_REDIS_URL: .*LOGSTORE_REDIS_PASSWORD_FILE is set too") as refused:
        make_redis_link(settings(redis_url=url, redis_password_file=secret(tmp_path / "p", "two")))
    assert "one" not in str(refused.value).replace("none", "")


def test_tls_always_checks_who_answers(tmp_path: Path) -> None:
    ca = secret(tmp_path / "ca.pem", "")
    link = make_redis_link(settings(redis_url="rediss://r:6380/0", redis_ca_file=ca, redis_cert_file=ca))
    assert link.tls == {
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
        "ssl_check_hostname": True,
        "ssl_ca_certs": str(ca),
        "ssl_certfile": str(ca),
        "ssl_keyfile": str(ca),
    }
    assert make_redis_link(settings(redis_url="redis://r/0")).tls is None
    with pytest.raises(ConfigError, match="LOGSTORE_REDIS_CA_FILE: cannot read"):
        make_redis_link(settings(redis_url="rediss://r", redis_ca_file=tmp_path / "gone"))


def test_sentinels_are_asked_by_the_name_of_what_they_watch(tmp_path: Path) -> None:
    url = "sentinel://a:26379;sentinel://b:26379/0"
    with pytest.raises(ConfigError, match="LOGSTORE_REDIS_SENTINEL_NAME"):
        make_redis_link(settings(redis_url=url))
    given = settings(redis_url=url, redis_sentinel_name="main", redis_password_file=secret(tmp_path / "p", "pw"))
    link = make_redis_link(given)
    assert link.url == "sentinel://:pw@a:26379;sentinel://:pw@b:26379/0"
    assert link.options["master_name"] == "main"
    with pytest.raises(ValueError, match="sentinel://"):
        settings(redis_url="sentinel://a:26379;redis://b")
