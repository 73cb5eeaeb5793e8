"""The device runtime: the agent that trains, evaluates and deploys on one device."""
