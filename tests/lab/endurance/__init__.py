"""No failover for nothing: minutes of overload of each kind, without a role change (``make endurance``)."""
