"""What customers ask a bank for, in 77 classes: 10,003 questions for training and 3,080 for the final measurement.

Source: Casanueva, Temčinas, Gerz, Henderson, Vulić, "Efficient Intent Detection with Dual Sentence Encoders", 2020,
arXiv 2003.04807; on the hub as legacy-datasets/banking77.
Differs: classes are in the order of the hub, which sorts them without regard to case; the file categories.json of the
authors has another order.
"""

from typing import ClassVar

from whet.tasks.base import Task, local_folder, read_hub
from whet.tasks.data import Examples
from whet.tasks.files import class_indices, read_table

__all__ = ["Banking77"]

_INTENTS = """
        activate_my_card age_limit apple_pay_or_google_pay atm_support automatic_top_up
    balance_not_updated_after_bank_transfer balance_not_updated_after_cheque_or_cash_deposit beneficiary_not_allowed
    cancel_transfer card_about_to_expire card_acceptance card_arrival card_delivery_estimate card_linking
    card_not_working card_payment_fee_charged card_payment_not_recognised card_payment_wrong_exchange_rate
    card_swallowed cash_withdrawal_charge cash_withdrawal_not_recognised change_pin compromised_card
    contactless_not_working country_support declined_card_payment declined_cash_withdrawal declined_transfer
    direct_debit_payment_not_recognised disposable_card_limits edit_personal_details exchange_charge exchange_rate
    exchange_via_app extra_charge_on_statement failed_transfer fiat_currency_support get_disposable_virtual_card
    get_physical_card getting_spare_card getting_virtual_card lost_or_stolen_card lost_or_stolen_phone
    order_physical_card passcode_forgotten pending_card_payment pending_cash_withdrawal pending_top_up pending_transfer
    pin_blocked receiving_money Refund_not_showing_up request_refund reverted_card_payment?
    supported_cards_and_currencies terminate_account top_up_by_bank_transfer_charge top_up_by_card_charge
    top_up_by_cash_or_cheque top_up_failed top_up_limits top_up_reverted topping_up_by_card transaction_charged_twice
    transfer_fee_charged transfer_into_account transfer_not_received_by_recipient transfer_timing
    unable_to_verify_identity verify_my_identity verify_source_of_funds verify_top_up virtual_card_not_working
    visa_or_mastercard why_verify_identity wrong_amount_of_cash_received wrong_exchange_rate_for_cash_withdrawal
"""
_LABELS = tuple(_INTENTS.split())
_FILES = {"train": "train.csv.gz", "test": "test.csv"}


class Banking77(Task):
    """Questions in 77 classes; `data_dir` holds train.csv.gz and test.csv, or a folder banking77 with them."""

    names: ClassVar[tuple[str, ...]] = ("banking77",)
    hub_name: ClassVar[str] = "legacy-datasets/banking77"

    @property
    def label_names(self) -> tuple[str, ...]:
        """See `Task.label_names`."""
        return _LABELS

    @property
    def metrics(self) -> tuple[str, ...]:
        """See `Task.metrics`."""
        return ("accuracy",)

    def read(self) -> tuple[Examples, Examples]:
        """See `Task.read`."""
        return self._read("train"), self._read("test")

    def _read(self, split: str) -> Examples:
        if self.data_dir is None:
            rows = read_hub(self.hub_name, split)
            return Examples(list(rows["text"]), list(rows["label"]))
        path = local_folder(self.data_dir, self.name, files=tuple(_FILES.values())) / _FILES[split]
        table = read_table(path, ("text", "category"))
        return Examples(table["text"], class_indices(table["category"], _LABELS, source=path))
