"""Remakes seeds/weights: `python tests/fuzz/seeds.py`, with gguf, torch, safetensors and numpy. Small, so that what is
changed in them is their headers, and sound, so that what lies behind those is reached."""

import zipfile
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from safetensors.torch import save_file

FOLDER = Path(__file__).resolve().parent / "seeds/weights"


def of_gguf(name, kinds, pairs):
    writer = gguf.GGUFWriter(FOLDER / f"{name}.gguf", "sd1")
    if pairs:
        writer.add_custom_alignment(64)
        writer.add_float64("a", 0.5)
        writer.add_array("b", [1, 2])
        writer.add_array("c", ["x", "y"])
    for kind in kinds:
        block, size = gguf.GGML_QUANT_SIZES[kind]
        writer.add_tensor(kind.name, np.zeros((1, size), np.uint8), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    of_gguf("plain", [Type.F32, Type.F16, Type.BF16, Type.F64], True)
    of_gguf("blocks", [Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0], False)
    of_gguf("k-blocks", [Type.Q2_K, Type.Q3_K, Type.Q4_K, Type.Q5_K, Type.Q6_K, Type.Q8_K], False)
    eight = torch.arange(4, dtype=torch.uint8).reshape(2, 2).view(torch.float8_e4m3fn)
    save_file({"a.weight": eight, "a.scale_weight": torch.ones(2, 1), "b": torch.ones(1, dtype=torch.float64)}, FOLDER / "f8.safetensors")
    save_file({"emb_params": torch.ones(1, 4), "v_pred": torch.empty(0)}, FOLDER / "embedding.safetensors", {"modelspec.prediction_type": "v"})
    nested = {"state_dict": {"a.weight": torch.ones(2, 3), "b.bias": torch.ones(2, dtype=torch.float16)}, "step": 1}
    torch.save(nested, FOLDER / "zip.ckpt")
    torch.save(nested, FOLDER / "legacy.pt", _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(FOLDER / "zip.ckpt") as file:
        (FOLDER / "inner.pkl").write_bytes(file.read(next(name for name in file.namelist() if name.endswith("data.pkl"))))
    for file in FOLDER.iterdir():
        file.chmod(0o644)


if __name__ == "__main__":
    main()
