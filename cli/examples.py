"""How commands end their help: with commands as they are typed."""

AGAIN = "The same command again goes on where it was stopped."


def examples(*commands: str, again: bool = True) -> str:
    """Return commands as the end of a help page.

    Args:
        commands: As typed, each with a few words behind it if need be.
        again: Whether to say that the same command resumes.
    """
    shown = [f"[cyan]{command}[/cyan]" for command in commands]
    return "\n\n".join(["[bold]Examples[/bold]", *shown, *([AGAIN] if again else [])])
