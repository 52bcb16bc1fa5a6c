"""When to answer on the device, when to ask the cloud, and what to do when neither can answer."""
