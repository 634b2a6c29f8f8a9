"""Models on the Hugging Face Hub: the model card that a record and an audit give, the files that may go there, the push."""

from expunge.hub.card import model_card, write_card
from expunge.hub.push import Push, after, check, check_run, push_to_hub, refuse

__all__ = ["Push", "after", "check", "check_run", "model_card", "push_to_hub", "refuse", "write_card"]
