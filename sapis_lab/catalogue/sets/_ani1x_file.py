"""The one file that holds both ANI-1x and ANI-1ccx."""

from sapis_lab.catalogue._base import OfficialFile

ANI1X_FILE = OfficialFile(
    part="ani1x-release.h5",
    url="https://springernature.figshare.com/ndownloader/files/18112775",
    path="ani1x-release.h5",
    n_bytes=5_590_846_027,
    md5="98090dd6679106da861f52bed825ffb7",
    sha256="fe0ba06198ee72cf1003deebab2652097f6ab518337784dc811fa7da0c3bf5ac",
    about="ANI-1x and ANI-1ccx in one file, grouped by formula",
)
