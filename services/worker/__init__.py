"""The worker: claims tasks, runs them in child processes, reports what happened."""
