"""Who may bind keys on which HSM: release rules as data, denied unless one of them says otherwise. Pure."""
