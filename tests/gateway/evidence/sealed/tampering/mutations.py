"""What somebody with write access can do to a store and its journals: one mutation at a time, chosen by chance.

    mutation = tamper(folder, chance)     change something in a copy of a house; None when that house has no such thing
    mutation.named(verdict)               whether the first bad record that was named is the one that was changed

Everything that is changed is covered by a checkpoint. Not changed is what no signature can vouch for: the words of a
gap and its time, a gap among records that were dropped since, when a public key was published, when a stub's record was
received, when a segment was begun.
"""

import random
from collections.abc import Callable
from pathlib import Path

from tests.gateway.evidence.sealed.tampering.gone import (
    change_a_stub,
    change_an_erasure,
    change_what_is_told_of_a_dropped_day,
    claim_an_erasure,
    drop_a_day_without_telling,
    prune_a_record_without_telling,
)
from tests.gateway.evidence.sealed.tampering.journals import (
    cut_out_a_frame,
    erase_a_frame_without_telling,
    flip_a_byte_of_a_frame,
    flip_a_byte_of_a_header,
    forge_a_frame,
    put_a_segment_of_another_journal,
    swap_two_frames,
    swap_two_segments,
    take_away_a_segment,
)
from tests.gateway.evidence.sealed.tampering.raw import Mutation, Store
from tests.gateway.evidence.sealed.tampering.records import (
    change_a_word,
    copy_a_record_into_another_day,
    delete_a_record,
    delete_and_close_ranks,
    delete_many,
    delete_parts,
    edit_a_sealed_part_and_its_columns,
    flip_a_column,
    flip_a_part,
    flip_a_sealed_part,
    give_a_record_to_another_journal,
    insert_a_record,
    move_a_record,
    rename_a_journal,
    renumber_a_row,
    splice_a_record,
    swap_two_records,
    swap_two_sealed_parts,
)
from tests.gateway.evidence.sealed.tampering.signed import (
    change_a_checkpoint,
    change_a_gap,
    change_a_key,
    change_a_position,
    change_where_a_checkpoint_is_found,
    rewrite_and_sign_again,
    rewrite_what_follows,
    truncate,
)

MUTATIONS: tuple[Callable[[Store, random.Random], Mutation | None], ...] = (
    flip_a_column,
    flip_a_sealed_part,
    edit_a_sealed_part_and_its_columns,
    flip_a_part,
    delete_a_record,
    delete_parts,
    delete_many,
    delete_and_close_ranks,
    move_a_record,
    renumber_a_row,
    give_a_record_to_another_journal,
    swap_two_records,
    swap_two_sealed_parts,
    splice_a_record,
    insert_a_record,
    copy_a_record_into_another_day,
    rename_a_journal,
    change_a_word,
    change_an_erasure,
    claim_an_erasure,
    change_a_stub,
    prune_a_record_without_telling,
    drop_a_day_without_telling,
    change_what_is_told_of_a_dropped_day,
    change_a_checkpoint,
    truncate,
    rewrite_what_follows,
    rewrite_and_sign_again,
    change_a_key,
    change_a_position,
    change_a_gap,
    change_where_a_checkpoint_is_found,
    flip_a_byte_of_a_frame,
    forge_a_frame,
    erase_a_frame_without_telling,
    swap_two_frames,
    cut_out_a_frame,
    take_away_a_segment,
    swap_two_segments,
    flip_a_byte_of_a_header,
    put_a_segment_of_another_journal,
)


def tamper(house: Path, index: int, chance: random.Random) -> Mutation | None:
    """Apply mutation `index` (any number, they come in turn) to a closed house, in place."""
    return MUTATIONS[index % len(MUTATIONS)](Store(house / "audit", chance), chance)
