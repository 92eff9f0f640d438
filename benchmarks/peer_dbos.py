"""DBOS's durable queue, for comparison; runs in an environment of its own, which has only DBOS.

    python benchmarks/peer_dbos.py DATABASE_URL NUM_ITEMS

enqueues workflows that do nothing, then starts a worker and prints how many a second it claims and
completes.
"""

import sys
import time

QUEUE = "items"


def nothing(item: int) -> int:
    """Return what is given: the workflow.

    Args:
        item: Any number.
    """
    return item


def main(url: str, num_items: int) -> None:
    """Enqueue, then work.

    Args:
        url: An empty database.
        num_items: How many workflows.
    """
    from dbos import DBOS, DBOSClient

    DBOS(config={"name": "peer", "system_database_url": url, "log_level": "ERROR"})

    DBOS.workflow(name="nothing")(nothing)
    DBOS.launch()  # makes the tables
    client = DBOSClient(system_database_url=url)
    for k in range(num_items):
        client.enqueue({"queue_name": QUEUE, "workflow_name": "nothing"}, k)
    started = time.perf_counter()
    DBOS.register_queue(QUEUE, polling_interval_sec=0.01)  # whose worker starts with it
    while client.list_workflows(status=["ENQUEUED", "PENDING"], limit=1):
        time.sleep(0.02)
    print(num_items / (time.perf_counter() - started))
    client.destroy()
    DBOS.destroy()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
