"""Submits a job, drops the connection, and fetches the picture over another one."""

import argparse
import uuid

import latentd


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompt")
    parser.add_argument("file", help="where the PNG goes")
    parser.add_argument("--size", type=int, default=512)
    args = parser.parse_args()
    params = {"prompt": args.prompt, "width": args.size, "height": args.size}

    with latentd.Client() as client:
        # The id makes it safe to submit again when it is not clear whether the first try arrived.
        job = client.jobs.submit("txt2img", params, id=str(uuid.uuid4()))
    print(f"job {job}")

    with latentd.Client() as client:
        for event in client.events(job):
            print(event.seq, event.type)
        print(client.jobs.wait(job).images[0].save(args.file))


if __name__ == "__main__":
    main()
