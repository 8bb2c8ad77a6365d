"""One self-contained page for the person who will check suspicious labels: no script, nothing from a network."""

import base64
import io
from html import escape
from pathlib import Path

import pandas as pd

from .images import thumbnail

# Legible by day and by night, and on paper.
_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { border: 1px solid #8888; padding: .2rem .7rem; text-align: right; }
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1rem; padding: 0; }
figure { margin: 0; padding: .6rem; border: 1px solid #8888; border-radius: .4rem; break-inside: avoid; }
img { display: block; height: 10rem; max-width: 100%; object-fit: contain; margin: 0 auto .4rem; }
figcaption { font-size: .85rem; overflow-wrap: anywhere; }
"""


def pair_counts(table: pd.DataFrame) -> pd.DataFrame:
    """How many labels were changed from which class to which, most frequent first.

    Args:
        table: of :func:`emlc_lib.estimator.folder.with_verified`, whose verified rows do not count, or
            ``EMLCClassifier.correct_labels``.

    Returns:
        Columns ``given_label``, ``corrected_label``, ``images``; without labels that were kept or not given.
    """
    known = table[table["given_label"].notna() & ~table.get("verified", pd.Series(False, table.index))]
    changed = known[known["given_label"] != known["corrected_label"]].astype(
        {"given_label": str, "corrected_label": str}
    )
    counts = changed.groupby(["given_label", "corrected_label"]).size().rename("images").reset_index()
    return counts.sort_values(["images", "given_label", "corrected_label"], ascending=[False, True, True])


def report(table: pd.DataFrame, suspicious: pd.DataFrame, folder: str | Path) -> str:
    """The page, as text.

    Args:
        table: all images.
        suspicious: rows of ``EMLCClassifier.correct_labels``, the most suspicious first; paths are relative to
            ``folder``.

    Raises:
        InputError: an image cannot be read.
    """
    pairs = pair_counts(table)
    rows = "".join(
        f"<tr><td>{escape(row.given_label)}</td><td>{escape(row.corrected_label)}</td><td>{row.images}</td></tr>"
        for row in pairs.itertuples()
    )
    figures = "".join(_figure(row, Path(folder)) for row in suspicious.itertuples())
    summary = f"{len(table)} images; the network proposes to change {pairs['images'].sum()} labels."
    to_fill_in = suspicious[["path"]].assign(label="").to_csv(index=False, header=False)
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Labels to check</title><style>{_STYLE}</style></head>
<body>
<h1>Labels to check</h1>
<p>{summary} Some proposals are wrong: look at each image, most suspicious first.</p>
<h2>The {len(suspicious)} most suspicious labels</h2>
<main>{figures}</main>
<h2>Changed labels by pair of classes</h2>
<table><thead><tr><th>given</th><th>proposed</th><th>images</th></tr></thead><tbody>{rows}</tbody></table>
<p>The gate is the weight that the given label has in the proposal, from 0 (ignored) to 1 (kept); the probability
is that of the proposed class.</p>
<h2>What you saw</h2>
<p>Add these lines to your file of verified images, each with the label that you saw behind the comma.</p>
<pre>{escape(to_fill_in)}</pre>
</body></html>
"""


def _figure(row, folder: Path) -> str:
    buffer = io.BytesIO()
    thumbnail(folder / row.path, "images").save(buffer, "jpeg", quality=85)
    picture = base64.b64encode(buffer.getvalue()).decode()
    given, proposed, path = (escape(str(v)) for v in (row.given_label, row.corrected_label, row.path))
    proposal = "keeps it" if given == proposed else f"proposes <b>{proposed}</b>"
    return (
        f'<figure><img alt="{path}" src="data:image/jpeg;base64,{picture}"><figcaption>'
        f"{row.rank}. given <b>{given}</b>, {proposal} ({row.probability:.0%}), gate {row.gate:.2f}<br>{path}"
        "</figcaption></figure>"
    )
