"""Who may do what: tokens, operators' log-in, and the audit trail."""
