"""An agent that charges a card when a human has approved, once, whatever happens to the processes that it runs in.

In one process: run.py. On a cluster: tenure dev -f examples/payments, and docs/sdk/steps.md.
"""

import card
import tenure


class PaymentState(tenure.State):
    """What is kept."""

    receipt: str = ""
    refused_by: str = ""


def convert(amount: int, currency: str) -> int:
    """What it is in euros. A real one asks for today's rates: its answer must be the same in every attempt."""
    return amount * {"EUR": 100, "CHF": 105}[currency] // 100


def charge(file: str, amount: int, key: tenure.StepKey) -> str:
    """The key makes it one charge, however often it is asked for."""
    return card.charge(file, amount, key)


class Payment(tenure.Agent[PaymentState]):
    """One payment."""

    @tenure.action(turn_timeout=7 * 24 * 3600)
    async def pay(self, ctx: tenure.Context, amount: int, currency: str = "EUR") -> str:
        """Convert, wait for a human, charge. The receipt; empty: it was refused."""
        euros = await ctx.step("convert", convert, amount, currency)
        answer = await ctx.wait_for("payment.approved", "payment.refused", timeout=3 * 24 * 3600)
        if answer is None or answer.type == "payment.refused":
            self.state.refused_by = answer.source if answer is not None else "nobody answered"
            return ""
        receipt = await ctx.step("charge", charge, str(self.config["card"]), euros)
        await ctx.sleep(0.01)  # let the company of cards settle it
        self.state.receipt = receipt
        ctx.emit("payment.made", {"receipt": receipt, "euros": euros})
        return receipt

    @tenure.query
    def receipt(self) -> str:
        """Empty until it is paid."""
        return self.state.receipt


class ApprovalDesk(tenure.Agent[tenure.State]):
    """Where a human says yes or no, on a cluster."""

    @tenure.action
    def approve(self, ctx: tenure.Context, payment: str) -> None:
        """Let that payment go on."""
        ctx.emit("payment.approved", to=payment)

    @tenure.action
    def refuse(self, ctx: tenure.Context, payment: str) -> None:
        """Let that payment end."""
        ctx.emit("payment.refused", to=payment)
