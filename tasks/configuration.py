"""How Celery is set up for one validator. Values only, so that what production rests on can be read and tested."""

from __future__ import annotations

from typing import Any

from kombu.entity import Queue

from tasks.schedule import beat_schedule
from validator.redis_link import RedisLink
from validator.steps.pipeline import PIPELINE

QUEUES = tuple(dict.fromkeys(stage.queue for stage in PIPELINE.values()))
ROUTES = {task.value: {"queue": stage.queue} for task, stage in PIPELINE.items()}
VISIBILITY_S = 300
"""Far above any task's time, and above the 60 s that an ETA may lie ahead: what is in hand so long runs again."""
TIME_LIMIT_S = 120
SOFT_LIMIT_S = 100
SOFT_SHUTDOWN_S = 5
"""So long tasks in hand may take to end once a worker is told to stop; then their messages go back into the queue."""


def celery_options(link: RedisLink, tick_s: float) -> dict[str, Any]:
    """Acknowledged late, fetched one at a time, JSON only, no results kept, and no queue made by a misspelt name."""
    return {
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,
        "task_time_limit": TIME_LIMIT_S,
        "task_soft_time_limit": SOFT_LIMIT_S,
        "visibility_timeout": VISIBILITY_S,
        "broker_transport_options": {
            **link.options,
            "visibility_timeout": VISIBILITY_S,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
        },
        "broker_use_ssl": dict(link.tls) if link.tls is not None else False,
        "worker_soft_shutdown_timeout": SOFT_SHUTDOWN_S,
        "worker_enable_soft_shutdown_on_idle": False,
        "worker_cancel_long_running_tasks_on_connection_loss": True,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # for ever: Redis may be away for a night
        "accept_content": ["json"],
        "task_serializer": "json",
        "event_serializer": "json",
        "task_track_started": True,
        "task_ignore_result": True,
        "result_backend": None,
        "task_create_missing_queues": False,
        "task_default_queue": "round",
        "task_queues": [Queue(name) for name in QUEUES],
        "task_routes": ROUTES,
        "worker_send_task_events": False,  # a sixth of a worker's time; Flower turns them on while it watches
        "task_send_sent_event": False,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "enable_utc": True,
        "timezone": "UTC",
        "beat_schedule": beat_schedule(tick_s),
        "beat_scheduler": "tasks.schedule:SteadyScheduler",
    }
