"""Workers of dagster_celery read this where they find it: others do what a dead one had begun."""

task_acks_late = True
task_reject_on_worker_lost = True  # also where the kernel killed only the worker's child
worker_prefetch_multiplier = 1  # else one worker keeps four runs, and the others wait
