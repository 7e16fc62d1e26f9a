"""Write a tiny Llama into a folder: its shape and a tokenizer trained on the spot, no weights.

Run by the venv's own Python: `python tiny_model.py FOLDER`. vLLM serves it with `--load-format dummy`, which
fills the weights with random numbers: what it says is gibberish, how it batches, queues and counts is real.
"""

import itertools
import pathlib
import sys

# Both come with vLLM into its venv; the services know neither.
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # type: ignore[import-not-found]
from transformers import LlamaConfig, PreTrainedTokenizerFast  # type: ignore[import-not-found]

VOCABULARY = 512
CONTEXT_TOKENS = 2048
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-pair tokenizer over invented words: no text has to be shipped or fetched to train it."""
    tokens = Tokenizer(models.BPE(unk_token=None))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    syllables = ["".join(pair) for pair in itertools.product("bcdfgklmnprstvz", "aeiou")]
    words = (" ".join(first + second for second in syllables) for first in syllables)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        show_progress=False,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokens.train_from_iterator(words, trainer)
    if tokens.get_vocab_size() != VOCABULARY:
        raise SystemExit(f"the vocabulary has {tokens.get_vocab_size()} tokens, the model wants {VOCABULARY}")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        model_max_length=CONTEXT_TOKENS,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def shape() -> LlamaConfig:
    """3.3 million weights: a step of a few milliseconds on one core, so that a queue can be had at will."""
    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=CONTEXT_TOKENS,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        tie_word_embeddings=False,
        dtype="float32",
    )


folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
tokenizer().save_pretrained(folder)
shape().save_pretrained(folder)
