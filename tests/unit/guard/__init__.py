"""Guard: protocol, plan, fence and client, without a kernel."""
