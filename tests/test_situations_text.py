"Pieces of text"
import math
import pytest, torch
from fastai_clr_ext.situations.text import (
    CharAWD, awd_lstm, bits_per_character, cut_pieces, next_char_items, read_texts, topic_items)

def test_pieces_are_held_out_in_runs():
    train,valid = cut_pieces(torch.arange(64*60))
    n = [int(piece[0])//64 for piece in valid]
    assert n==[*range(20, 25), *range(45, 50)] and len(train)==50
    assert not set(train.flatten().tolist()) & set(valid.flatten().tolist())

def test_the_next_character():
    x,y = next_char_items().train.tensors
    text = torch.cat(list(read_texts().values()))
    assert torch.equal(x[0], text[:64]) and torch.equal(y[0], text[1:65]) and int(x.max())<128

def test_topics_are_files():
    items = topic_items()
    texts = read_texts()
    assert all(len(texts[name])>=3000 for name in items.vocab) and len(items.vocab)>=5
    x,y = items.valid.tensors
    for c,name in enumerate(items.vocab):
        text = bytes(texts[name].tolist())
        assert all(bytes(piece.tolist()) in text for piece in x[y==c])

def test_bits():
    logits = torch.zeros(1, 2, 128)
    logits[0,0,5] = 1e9
    assert bits_per_character(logits, torch.tensor([[5, 6]])).item()==pytest.approx((0+7)/2)
    p = torch.tensor([[[.25, .75]]]).log()
    assert bits_per_character(p, torch.tensor([[0]])).item()==pytest.approx(-math.log2(.25))

def test_each_batch_starts_from_zeros():
    torch.manual_seed(0)
    body,x = CharAWD().eval(),torch.randint(128, (2, 10))
    first = body(x)
    body(torch.randint(128, (5, 10)))
    assert torch.equal(body(x), first) and awd_lstm(128)(x).shape==(2, 10, 128)
