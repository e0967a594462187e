# ---- The network, with the cache of keys and values that minGPT lacks

def next_logits(model, heads, ids, cache, past):
    """Logits (B, V) of the token after `ids`, from the modules of minGPT's GPT or of transformers' GPT2LMHeadModel.

    Both name their modules alike, so that one function serves both.

    Args:
        heads: number of attention heads.
        ids: (B, T) tokens: the whole prompt if `past` is 0, else T = 1.
        cache: for each layer its keys and values (2, B, heads, room, C / heads); those of `ids` are put in here.
        past: how many tokens the cache holds already.
    """
    import torch
    from torch.nn.functional import scaled_dot_product_attention
    net, (B, T) = model.transformer, ids.shape
    now = past + T
    x = net.wte(ids) + net.wpe(torch.arange(past, now, device=ids.device))  # (B, T, C)
    for block, layer in zip(net.h, cache, strict=True):
        qkv = block.attn.c_attn(block.ln_1(x)).view(B, T, 3, heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, T, C / heads)
        layer[0, :, :, past:now], layer[1, :, :, past:now] = k, v
        y = scaled_dot_product_attention(q, layer[0, :, :, :now], layer[1, :, :, :now], is_causal=T > 1)
        x = x + block.attn.c_proj(y.transpose(1, 2).reshape(B, T, -1))
        mlp = block.mlpf if hasattr(block, "mlpf") else block.mlp  # minGPT's name, transformers' name
        x = x + mlp(block.ln_2(x))
    return model.lm_head(net.ln_f(x[:, -1]))  # of the last position only: (B, C) -> (B, V)


def sample(model, heads, prompts, steps, temperature=1.0, top_k=40, stopped=lambda row, ids: False):
    """Continue each row of `prompts` (B, T) by at most `steps` tokens; top_k=1 is greedy.

    A row ends once `stopped(row, its new ids)`, and leaves the batch. What it draws depends on the global seed and on
    its place in the batch, not on when the others end. Returns B lists of new ids.
    """
    import torch
    (B, T), table = prompts.shape, model.transformer.wte.weight
    V, C = table.shape
    with torch.inference_mode():
        cache = [table.new_empty(2, B, heads, T + steps, C // heads) for _ in model.transformer.h]
        drawn, rows, ended, ids, past = [[] for _ in range(B)], list(range(B)), set(), prompts.to(table.device), 0
        for _ in range(steps):
            values, tokens = next_logits(model, heads, ids, cache, past).float().topk(min(top_k, V))  # (b, k), sorted
            past += ids.shape[1]
            shares = ((values - values[:, :1]) / temperature).softmax(dim=1).cumsum(dim=1)  # (b, k), up to 1
            chance = torch.rand(B, 1)[rows].to(shares.device)  # drawn for all rows, so that none depends on the others
            ids = tokens.gather(1, (shares < chance * shares[:, -1:]).sum(dim=1, keepdim=True))  # (b, 1)
            for row, token in zip(rows, ids[:, 0].tolist(), strict=True):
                if row not in ended:
                    drawn[row].append(token)
                    if stopped(row, drawn[row]):
                        ended.add(row)
            going = [i for i, row in enumerate(rows) if row not in ended]
            if not going:
                break
            if len(going) <= 0.9 * len(rows):  # to drop rows costs a copy of the cache: not for a single one
                rows, index = [rows[i] for i in going], torch.tensor(going, device=ids.device)
                ids, cache = ids[index], [layer[:, index] for layer in cache]
    return drawn


def draw_sentences(prefixes, encode, decode, draw, bar):
    """Five different sentences for each prefix, as a list of {"prefix", "sentence", "cut"}.

    Args:
        encode, decode: text -> ids and back.
        draw: (equally long prompts, stopped) -> a list of new ids for each, see `sample`.
        bar: progress bar of the sentences found.
    """
    nlp = make_splitter()
    prompts = {prefix: encode(prefix) for prefix in prefixes}
    found, cut = ({prefix: [] for prefix in prefixes} for _ in range(2))

    def stopped(prefix, ids):
        over, text, complete = read_sample(nlp, prefix + decode(ids), len(prefix))
        if complete and text not in found[prefix]:
            found[prefix].append(text)
            bar.update()
        return over

    for _ in range(ROUNDS):
        for chosen in batches({prefix: SENTENCES - len(found[prefix]) for prefix in prefixes}, prompts):
            drawn = draw([prompts[prefix] for prefix in chosen],
                         lambda row, ids, chosen=chosen: stopped(chosen[row], ids))
            for prefix, ids in zip(chosen, drawn, strict=True):
                text = clean(read_sample(nlp, prefix + decode(ids), len(prefix))[1])
                if text not in found[prefix] + cut[prefix] and has_words(text[len(prefix):]):
                    cut[prefix].append(text)

    sentences = []
    for prefix in prefixes:
        texts = (found[prefix] + cut[prefix])[:SENTENCES]
        if len(texts) < SENTENCES:
            raise UserError(f"{ROUNDS} rounds gave only {len(texts)} different sentences for '{prefix}'; "
                            "raise --temperature, --top-k or --max-new-tokens.")
        sentences += [{"prefix": prefix, "sentence": text, "cut": text not in found[prefix]} for text in texts]
    return sentences


def batches(missing, prompts):
    """Lists of prefixes, each as often as it is `missing` ({prefix: number}), whose prompts are equally long."""
    for length in sorted({len(ids) for ids in prompts.values()}):
        chosen = [prefix for prefix, number in missing.items() if len(prompts[prefix]) == length
                  for _ in range(number)]
        yield from (chosen[i:i + ROWS] for i in range(0, len(chosen), ROWS))


# ---- minGPT, weights and tokenizer: where they come from

def probe(url):
    """Raise Unreachable unless `url` answers within seconds; git and the hub's library would try for minutes."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=10).close()
    except (OSError, HTTPException, ValueError) as error:
        raise Unreachable(f"{url} cannot be reached ({getattr(error, 'reason', error)})") from error


def find_mingpt(folder=None):
    """Make `import mingpt` work: from `folder`, the installed package, ./minGPT, or a clone made there."""
    if folder or not importable("mingpt.model"):
        if not folder:
            folder = "minGPT"
            if not Path(folder).exists():
                clone_mingpt(Path(folder))
        if not Path(folder, "mingpt", "model.py").is_file():
            raise UserError(f"{folder} is no clone of minGPT: it has no mingpt/model.py.")
        sys.path.insert(0, str(Path(folder).resolve()))
    try:
        from mingpt import bpe, model, utils  # noqa: F401
    except ImportError as error:
        raise UserError(f"minGPT cannot be imported ({error}); pip install -r requirements.txt.") from error


def importable(name):
    """Whether `import name` would find a module."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # not even its package
        return False


def clone_mingpt(folder):
    """Clone minGPT to `folder`, whole or not at all, at the commit that this program was written for."""
    print(f"minGPT is not here: cloning {MINGPT_URL} at {MINGPT_COMMIT[:7]} into {folder}/", flush=True)
    probe(MINGPT_URL)
    temporary = folder.with_name(f".{os.getpid()}.{folder.name}")
    try:
        for command in (["clone", "--quiet", "--no-checkout", MINGPT_URL, temporary],
                        ["-C", temporary, "checkout", "--quiet", MINGPT_COMMIT]):
            subprocess.run(["git", *command], check=True, capture_output=True, timeout=300)
        temporary.rename(folder)
    except (OSError, subprocess.SubprocessError) as error:
        raise Unreachable(f"git cannot clone {MINGPT_URL} ({type(error).__name__})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def choose_backend(args):
    """"mingpt" or "transformers": what was asked for, or what can be had."""
    if args.backend == "transformers":
        return "transformers"
    try:
        find_mingpt(args.mingpt_dir)
        return "mingpt"
    except Unreachable as error:
        if args.backend:
            raise UserError(f"minGPT cannot be had: {error}; clone it elsewhere and name the folder with "
                            "--mingpt-dir.") from error
        print(f"notice: minGPT cannot be had: {error}. GPT2LMHeadModel of transformers takes its place.")
        return "transformers"


def import_transformers():
    """The transformers module, kept (with the hub's library) from printing warnings and bars of its own."""
    warnings.filterwarnings("ignore", module="transformers|huggingface_hub")
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    import transformers
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def hub_folder(name):
    """The folder with the weights of `name` (one of MODELS) in the hub's cache; downloaded if need be."""
    cached_file = import_transformers().utils.cached_file

    def fetch(**options):
        paths = [cached_file(f"openai-community/{name}", file, **options)
                 for file in ("config.json", "model.safetensors")]
        return Path(paths[0]).parent

    with contextlib.suppress(OSError):
        return fetch(local_files_only=True)
    probe(f"{HUB}/openai-community/{name}/resolve/main/config.json")
    try:
        return fetch()
    except Exception as error:  # its kinds differ from version to version
        raise Unreachable(f"{HUB} answers, but does not give it ({type(error).__name__})") from error


def choose_folder(args):
    """(folder with the weights, the model's name, whether it is from the hub): as asked for, or as can be had."""
    if args.weights is not None:
        return Path(args.weights), Path(args.weights).resolve().name, False
    name = args.model or MODELS[0]
    try:
        return hub_folder(name), name, True
    except Unreachable as error:
        if args.model or not (OWN_GPT / "config.json").is_file():
            raise UserError(f"{name} cannot be had: {error}; run again with a network, or name a local folder with "
                            "--weights.") from error
        print(f"notice: {name} cannot be had: {error}. The sentences are by {OWN_GPT.name}, a small GPT of this "
              "project's own that was trained on film reviews; it is not GPT-2.")
        return OWN_GPT, OWN_GPT.name, False


def tokenizer_files(folder, size, from_hub):
    """Paths of vocabulary and merges: the folder's own, or else GPT-2's; nothing from the hub is taken unverified."""
    paths = []
    for name, (other_name, digest) in BPE_FILES.items():
        own = [path for path in (folder / name, folder / other_name) if path.is_file()
               and (not from_hub or file_digest(path) == digest)]
        cached = BPE_CACHE / name
        if not own and size != 50257:
            raise UserError(f"{folder} has no {name}; put there the one that the network was trained with.")
        if not own and not (cached.is_file() and file_digest(cached) == digest):
            download(f"{HUB}/openai-community/gpt2/resolve/main/{name}", cached, digest)
        paths.append(own[0] if own else cached)
    return paths


def read_tokenizer(paths, size):
    """(vocabulary {token: id}, merges [(left, right)]) of a network that knows `size` tokens."""
    try:
        vocabulary = json.loads(paths[0].read_text(encoding="utf-8"))
        lines = paths[1].read_text(encoding="utf-8").split("\n")
        merges = [tuple(line.split()) for line in lines[lines[0].startswith("#version"):] if line]
        fits = (sorted(vocabulary.values()) == list(range(size))
                and all(left + right in vocabulary for left, right in merges))
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{paths[0]} or {paths[1].name} is damaged; get both again.") from error
    if not fits:
        raise UserError(f"{paths[0]} ({len(vocabulary):,} tokens) and {paths[1].name} are not the tokenizer of this "
                        f"network ({size:,} tokens); put the right ones there.")
    return vocabulary, merges


def weights_file(folder):
    """Path of the weights of a Hugging Face folder."""
    paths = [path for path in (folder / "model.safetensors", folder / "pytorch_model.bin") if path.is_file()]
    if not paths or not (folder / "config.json").is_file():
        raise UserError(f"{folder} is no Hugging Face GPT-2 folder: it needs config.json, and model.safetensors or "
                        "pytorch_model.bin.")
    return paths[0]


def load_reference(folder):
    """transformers' GPT2LMHeadModel of a Hugging Face folder, in float32."""
    path = weights_file(folder)
    try:
        reference, report = import_transformers().GPT2LMHeadModel.from_pretrained(
            str(folder), output_loading_info=True, local_files_only=True)
    except Exception as error:  # a damaged file can fail in many ways, and none of them is of use to the reader
        raise UserError(f"{path} is damaged, or does not fit the config.json beside it; get both again.") from error
    config = reference.config
    built_in = dict(activation_function="gelu_new", layer_norm_epsilon=1e-5, scale_attn_weights=True,
                    scale_attn_by_inverse_layer_idx=False, n_inner=4 * config.n_embd)  # None stands for the same
    if report["missing_keys"] or any(getattr(config, key) not in (value, None) for key, value in built_in.items()):
        raise UserError(f"{folder} holds another kind of network than GPT-2; name a GPT-2 folder with --weights.")
    return reference.float().eval()


def to_mingpt(reference):
    """minGPT's GPT with the weights of transformers' GPT2LMHeadModel."""
    import torch
    from mingpt.model import GPT
    theirs, config = reference.config, GPT.get_default_config()
    config.model_type = None  # the sizes come from the folder's config.json
    config.n_layer, config.n_head, config.n_embd = theirs.n_layer, theirs.n_head, theirs.n_embd
    config.vocab_size, config.block_size = theirs.vocab_size, theirs.n_positions
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its number of parameters
        model = GPT(config)
    state = reference.state_dict()
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if not key.endswith(".attn.bias"):  # the causal mask, which is no weight
                tensor.copy_(state[key].t() if key.endswith(TRANSPOSED) else state[key])  # Conv1D -> Linear
    return model.eval()


@dataclass
class Writer:
    """A network with its tokenizer, and what there is to say of them."""
    model: Any
    encode: Any
    decode: Any
    set_seed: Any
    config: Any  # transformers' GPT2Config
    temperature: float  # that suits it
    facts: dict


def load_writer(folder, name, backend, from_hub=False, bfloat16=False):
    """The Writer of a folder of weights, for a backend "mingpt" or "transformers"."""
    import torch
    reference = load_reference(folder)
    config, temperature = reference.config, reference.generation_config.temperature or 1.0
    paths = tokenizer_files(folder, config.vocab_size, from_hub)
    vocabulary, merges = read_tokenizer(paths, config.vocab_size)
    cuda = torch.cuda.is_available()
    precision, device = (torch.float16, "cuda") if cuda else (torch.bfloat16 if bfloat16 else torch.float32, "cpu")
    reference = reference.to(device, precision)
    if backend == "mingpt":
        from mingpt.bpe import Encoder
        from mingpt.utils import set_seed
        model, encoder = to_mingpt(reference).to(device, precision), Encoder(vocabulary, merges)
        encode, decode = encoder.encode, encoder.decode
    else:
        from transformers import GPT2Tokenizer, set_seed
        model, tokenizer = reference, GPT2Tokenizer(*map(str, paths))
        encode, decode = tokenizer.encode, lambda ids: tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    facts = {"model": name, "parameters": reference.num_parameters(), "weights": weights_file(folder).name,
             "weights_sha256": file_digest(weights_file(folder)), "backend": backend,
             "device": torch.cuda.get_device_name() if cuda else platform.processor() or "CPU",
             "precision": str(precision).removeprefix("torch.")}
    return Writer(model, encode, decode, set_seed, config, temperature, facts)


