"""Real servers, a load generator and a counting proxy, for benches of what devices fetch."""
