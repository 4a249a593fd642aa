"""A package with tasks, as you would write one."""
