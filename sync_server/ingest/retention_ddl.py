"""x"""
STATEMENTS: tuple[str, ...] = ()
