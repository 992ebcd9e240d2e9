"""The registry of releases and the home of what devices find: repository, rollouts, results, dashboard."""
