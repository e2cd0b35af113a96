"""Answers from outside: mails, Slack messages and buttons that go on with a conversation or decide its questions."""

from app.answers.headers import MAX_ADDRESS
from app.answers.mail import NeutralMail, mail_of
from app.answers.mailbox import Mailbox
from app.answers.query import answers_to
from app.answers.slack import SlackDoor, click_of, message_of
from app.answers.take import Answered

__all__ = [
    "MAX_ADDRESS",
    "Answered",
    "Mailbox",
    "NeutralMail",
    "SlackDoor",
    "answers_to",
    "click_of",
    "mail_of",
    "message_of",
]
