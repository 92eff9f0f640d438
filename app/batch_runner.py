"""The worker of a process, put together from what the process has and its settings."""

from app.batch_answers import EndpointAnswers
from app.batches.jobs import JobRunner, JobTools, worker_name
from app.batches.leases import Leases
from app.batches.leftovers import Leftovers
from app.batches.stages import StageLimits, Stages
from app.batches.webhooks import WebhookOutbox, WebhookSender
from app.deps import Service

LEASE_MARGIN = 0.8
"""What a lease lasts of the promised time, so that its lines move on within that time."""


def make_runner(service: Service) -> JobRunner:
    """Build the worker of this process.

    Args:
        service: Who answers what stands in lines.

    Returns:
        A worker that is not started.
    """
    settings, database, name = service.settings, service.database, worker_name()
    lease_s = settings.batch_lease_s * LEASE_MARGIN
    sender = None
    if settings.webhook_secret is not None:
        sender = WebhookSender(
            database,
            secret=settings.webhook_secret.get_secret_value(),
            allow_private=settings.allow_private_webhooks,
        )
    tools = JobTools(
        files=service.files,
        leases=Leases(database, worker=name, lease_s=lease_s),
        stages=Stages(
            database,
            service.files,
            WebhookOutbox(settings.webhook_url if sender else None),
            worker=name,
            lease_s=lease_s,
            limits=StageLimits(
                max_lines=settings.max_batch_lines, max_line_bytes=settings.max_body_bytes
            ),
        ),
        leftovers=Leftovers(database, service.files.store),
        sender=sender,
        answer=EndpointAnswers(service),
    )
    runner = JobRunner(
        tools,
        concurrency=settings.batch_concurrency,
        max_tries=settings.batch_max_tries,
        public_url=(settings.public_url or "").rstrip("/"),
    )
    service.batches.listen(runner.wake)
    return runner
