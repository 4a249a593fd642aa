"""The scheduler: feeds, promotes, rescues and keeps house, under leadership."""
