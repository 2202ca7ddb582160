"""The stages of the engine as processes: starting, monitoring, restarting and messaging them."""
