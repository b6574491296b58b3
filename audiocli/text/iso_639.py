"""Codes of languages in three letters, as containers of audio and video need them."""

from __future__ import annotations

import re

from .languages import find_language_code

# ISO 639-1 and ISO 639-2/T. Source: pycountry 24.6.1 (the tables of Debian's iso-codes).
_CODES = """
aa aar, ab abk, ae ave, af afr, ak aka, am amh, an arg, ar ara, as asm, av ava, ay aym, az aze, ba bak, be bel,
bg bul, bi bis, bm bam, bn ben, bo bod, br bre, bs bos, ca cat, ce che, ch cha, co cos, cr cre, cs ces, cu chu,
cv chv, cy cym, da dan, de deu, dv div, dz dzo, ee ewe, el ell, en eng, eo epo, es spa, et est, eu eus, fa fas,
ff ful, fi fin, fj fij, fo fao, fr fra, fy fry, ga gle, gd gla, gl glg, gn grn, gu guj, gv glv, ha hau, he heb,
hi hin, ho hmo, hr hrv, ht hat, hu hun, hy hye, hz her, ia ina, id ind, ie ile, ig ibo, ii iii, ik ipk, io ido,
is isl, it ita, iu iku, ja jpn, jv jav, ka kat, kg kon, ki kik, kj kua, kk kaz, kl kal, km khm, kn kan, ko kor,
kr kau, ks kas, ku kur, kv kom, kw cor, ky kir, la lat, lb ltz, lg lug, li lim, ln lin, lo lao, lt lit, lu lub,
lv lav, mg mlg, mh mah, mi mri, mk mkd, ml mal, mn mon, mr mar, ms msa, mt mlt, my mya, na nau, nb nob, nd nde,
ne nep, ng ndo, nl nld, nn nno, no nor, nr nbl, nv nav, ny nya, oc oci, oj oji, om orm, or ori, os oss, pa pan,
pi pli, pl pol, ps pus, pt por, qu que, rm roh, rn run, ro ron, ru rus, rw kin, sa san, sc srd, sd snd, se sme,
sg sag, sh hbs, si sin, sk slk, sl slv, sm smo, sn sna, so som, sq sqi, sr srp, ss ssw, st sot, su sun, sv swe,
sw swa, ta tam, te tel, tg tgk, th tha, ti tir, tk tuk, tl tgl, tn tsn, to ton, tr tur, ts tso, tt tat, tw twi,
ty tah, ug uig, uk ukr, ur urd, uz uzb, ve ven, vi vie, vo vol, wa wln, wo wol, xh xho, yi yid, yo yor, za zha,
zh zho, zu zul
"""
# Codes of ISO 639-2/B, which Matroska files have, with those of 639-2/T. Source: as above.
_BIBLIOGRAPHIC_CODES = """
alb sqi, arm hye, baq eus, bur mya, chi zho, cze ces, dut nld, fre fra, geo kat, ger deu, gre ell, ice isl, mac mkd,
mao mri, may msa, per fas, rum ron, slo slk, tib bod, wel cym
"""
_PREVIOUS_CODES = {"in": "ind", "iw": "heb", "ji": "yid", "jw": "jav"}


def convert_to_iso_639_2(language: str) -> str | None:
    """Return the code of a language in three letters: `deu` for `de`, `de-AT` and `German`.

    A code that has three letters already is returned as it is. Return None if the language is unknown.
    """
    codes = _parse_codes(_CODES) | _PREVIOUS_CODES
    primary = re.split(r"[-_]", language.strip().lower(), maxsplit=1)[0]
    if primary in codes:
        return codes[primary]
    if re.fullmatch(r"[a-z]{3}", primary):
        return primary
    named = find_language_code(language)
    return codes.get(named, named) if named is not None else None


def is_same_language(language: str, other: str) -> bool:
    """Return whether two codes or names mean the same language: `de`, `deu`, `ger`, `de-AT` and `German` do."""
    terminological = _parse_codes(_BIBLIOGRAPHIC_CODES)
    codes = [convert_to_iso_639_2(name) for name in (language, other)]
    return codes[0] is not None and len({terminological.get(code or "", code) for code in codes}) == 1


def convert_to_bibliographic(code: str) -> str:
    """Return the code of ISO 639-2/B for one of 639-2/T: `ger` for `deu`. Most languages have only one."""
    bibliographic = {terminological: code for code, terminological in _parse_codes(_BIBLIOGRAPHIC_CODES).items()}
    return bibliographic.get(code, code)


def _parse_codes(pairs: str) -> dict[str, str]:
    return dict(pair.split() for pair in pairs.replace("\n", " ").split(","))
