"""Our CA, the leaves of our processes, and the invitations by which hosts join."""
