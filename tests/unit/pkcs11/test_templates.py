"""What keys of ours look like, and what no template may combine."""

from __future__ import annotations

import pytest
from pkcs11 import Attribute

from chatelaine.model.identifiers import key_id
from chatelaine.model.keys import WORKING_KEY_TYPES, KeyType
from chatelaine.pkcs11.templates import (
    KEY_TYPES,
    NEVER_TOGETHER,
    REQUIRED_PRIVATE,
    REQUIRED_PUBLIC,
    USAGES,
    deviations,
    pair_template,
    session_pair,
    usages_of,
)

LABEL = "chat/uid/signing/1"
PAIRS = [pair_template(LABEL, key_type) for key_type in KEY_TYPES]


def test_every_type_that_claims_may_ask_for_has_a_template() -> None:
    assert set(KEY_TYPES) == set(WORKING_KEY_TYPES)
    with pytest.raises(KeyError):
        pair_template(LABEL, KeyType.AES_256)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.key_type.value)
def test_wrap_and_decrypt_never_stand_together(pair: object) -> None:
    for template in (pair.public, pair.private):
        on = {name for name in USAGES if template.get(name)}
        assert not any(forbidden <= on for forbidden in NEVER_TOGETHER)
        assert not on & {
            Attribute.WRAP,
            Attribute.UNWRAP,
            Attribute.DECRYPT,
            Attribute.ENCRYPT,
            Attribute.DERIVE,
        }


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.key_type.value)
def test_no_usage_is_left_to_the_module(pair: object) -> None:
    private, public = pair.private, pair.public
    for name in (Attribute.SIGN_RECOVER, Attribute.DECRYPT, Attribute.UNWRAP, Attribute.DERIVE):
        assert private[name] is False
    for name in (Attribute.VERIFY_RECOVER, Attribute.ENCRYPT, Attribute.WRAP, Attribute.DERIVE):
        assert public[name] is False
    assert usages_of(private) == ("CKA_SIGN",)
    assert usages_of(public) == ("CKA_VERIFY",)
    assert private[Attribute.SENSITIVE] is True
    assert private[Attribute.PRIVATE] is True
    assert private[Attribute.EXTRACTABLE] is False
    for half in (private, public):
        assert half[Attribute.TOKEN] is True
        assert half[Attribute.MODIFIABLE] is False
        assert half[Attribute.ID] == key_id(LABEL)
        assert half[Attribute.LABEL] == LABEL


def test_the_self_test_leaves_nothing_on_the_token() -> None:
    for pair in map(session_pair, PAIRS):
        assert pair.private[Attribute.TOKEN] is False
        assert pair.public[Attribute.TOKEN] is False


@pytest.mark.parametrize("name", sorted(REQUIRED_PRIVATE, key=lambda name: name.name), ids=lambda name: name.name)
def test_every_wrong_attribute_of_a_private_half_is_named(name: Attribute) -> None:
    right = dict(REQUIRED_PRIVATE)
    assert deviations(REQUIRED_PRIVATE, right) == ()
    wrong = {**right, name: not right[name]}
    assert deviations(REQUIRED_PRIVATE, wrong) == (f"CKA_{name.name}={not right[name]}",)


def test_an_attribute_that_the_token_does_not_tell_is_a_deviation_unless_it_is_a_usage_that_is_off() -> None:
    untold = {name: value for name, value in REQUIRED_PRIVATE.items() if name is not Attribute.NEVER_EXTRACTABLE}
    assert deviations(REQUIRED_PRIVATE, untold) == ("CKA_NEVER_EXTRACTABLE=absent",)
    untold = {name: value for name, value in REQUIRED_PUBLIC.items() if name is not Attribute.WRAP}
    assert deviations(REQUIRED_PUBLIC, untold) == ()
    untold = {name: value for name, value in REQUIRED_PUBLIC.items() if name is not Attribute.VERIFY}
    assert deviations(REQUIRED_PUBLIC, untold) == ("CKA_VERIFY=False",)
