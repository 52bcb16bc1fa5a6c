"""What was done to the fleet, by whom and why: append-only, each entry chained to the one before by its digest."""
