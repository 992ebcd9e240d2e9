"""Who may speak: enrolment tokens, devices, their tokens, and what each device says of itself."""
