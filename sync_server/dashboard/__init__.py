"""The fleet at a glance: figures from roll-ups as JSON, and the pages a person looks at."""
