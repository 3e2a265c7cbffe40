"""The calls that hold credits before work starts and settle for what was used."""

from __future__ import annotations

from meter.contract import answers, requests
from meter.contract.call import OF_A_USAGE, OF_AN_API_KEY, OF_SPENDING, Call, Example
from meter.contract.table.story import IN_5_MINUTES, IN_10_MINUTES, JOB, JOB_2, NOW, USER, balances

TAG = "reservations"
_FINISHED = ("reservation-not-found", "reservation-committed", "reservation-released", "reservation-expired")

CALLS = (
    Call(
        "reserve",
        "POST",
        "/reservations",
        "Hold credits",
        TAG,
        answers.Reserved,
        Example(
            {**USER, **JOB, "amount": 25, "expires_at": IN_5_MINUTES, "expires_in": 300, **balances(62.5, 25)},
            {**USER, "amount": 25, "ttl_seconds": 300, **JOB},
        ),
        body=requests.ReserveRequest,
        status=201,
        refuses=(*OF_SPENDING, *OF_A_USAGE, *OF_AN_API_KEY, "too-many-reservations"),
        keyed=True,
    ),
    Call(
        "reservations",
        "GET",
        "/reservations",
        "List a user's open reservations",
        TAG,
        answers.ReservationPage,
        Example(
            {
                "items": [
                    {
                        **JOB,
                        **USER,
                        "state": "open",
                        "amount": 25,
                        "charged": 0,
                        "expires_at": IN_5_MINUTES,
                        "created_at": NOW,
                    }
                ],
                "next_cursor": None,
            },
            query=USER,
        ),
        query=requests.ReservationsQuery,
        refuses=("not-implemented",),
    ),
    Call(
        "reservation",
        "GET",
        "/reservations/{reservation_id}",
        "Read a reservation",
        TAG,
        answers.Reservation,
        Example(
            {
                **USER,
                **JOB,
                "state": "open",
                "amount": 25,
                "charged": 0,
                "expires_at": IN_5_MINUTES,
                **balances(62.5, 25),
            },
            path=JOB,
        ),
        refuses=("reservation-not-found",),
    ),
    Call(
        "commit",
        "POST",
        "/reservations/{reservation_id}/commit",
        "Settle a reservation for what was used",
        TAG,
        answers.Committed,
        Example(
            {
                **USER,
                **JOB,
                "transaction_id": "0-5-5f0c2d9a3b-5",
                "charged": 18.25,
                "released": 11.75,
                "forfeited": 0,
                "uncovered": 0,
                "late": False,
                **balances(69.25, 0),
            },
            {"amount": 18.25},
            path=JOB,
        ),
        body=requests.CommitRequest,
        refuses=(
            *("insufficient-credits", "budget-reached", "key-not-allowed"),
            *(*OF_A_USAGE, "reservation-not-priced", *_FINISHED),
        ),
        keyed=True,
    ),
    Call(
        "release",
        "POST",
        "/reservations/{reservation_id}/release",
        "Give a reservation back",
        TAG,
        answers.Released,
        Example(
            {
                **USER,
                **JOB_2,
                "transaction_id": "0-8-5f0c2d9a3b-7",
                "released": 8,
                "forfeited": 0,
                **balances(68, 0),
            },
            {"description": "Not needed"},
            path=JOB_2,
        ),
        body=requests.ReleaseRequest,
        refuses=tuple(slug for slug in _FINISHED if slug != "reservation-released"),  # answers as the first time
        keyed=True,
    ),
    Call(
        "extend",
        "POST",
        "/reservations/{reservation_id}/extend",
        "Give a reservation more time or credits",
        TAG,
        answers.Extended,
        Example(
            {**USER, **JOB, "amount": 30, "expires_at": IN_10_MINUTES, "expires_in": 600, **balances(57.5, 30)},
            {"ttl_seconds": 600, "add_amount": 5},
            path=JOB,
        ),
        body=requests.ExtendRequest,
        refuses=(*(slug for slug in OF_SPENDING if slug != "rate-limited"), *_FINISHED),
        keyed=True,
    ),
)
