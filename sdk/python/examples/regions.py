"""Draws one thing on the left and another on the right: python regions.py "a beach" "a lighthouse" "a palm" both.png"""

import argparse

import latentd


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompt", help="what all of the picture is told")
    parser.add_argument("left")
    parser.add_argument("right")
    parser.add_argument("file", help="where the PNG goes")
    parser.add_argument("--size", type=int, default=512)
    args = parser.parse_args()

    # Masks are laid over the picture, whatever their size: two grey pixels are two halves. A file's path does, too.
    left = latentd.Image(2, 1, raw=b"\xff\x00", channels=1)
    right = latentd.Image(2, 1, raw=b"\x00\xff", channels=1)
    with latentd.Client() as client:
        result = client.txt2img(
            args.prompt,
            regions=[
                {"mask": left, "prompt": args.left, "weight": 0.8},
                {"mask": right, "prompt": args.right, "weight": 0.8},
            ],
            width=args.size,
            height=args.size,
        )
    print(result.images[0].save(args.file))


if __name__ == "__main__":
    main()
