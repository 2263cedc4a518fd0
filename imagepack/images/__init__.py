"""Image files, from folders to pixels.

raw_files, raw_names, zips                       which files there are, what their names say, their bytes
containers, boxes, jpeg, jpeg_xl, tiff, png      how a file of each format is put together
formats, decode, frames, faults                  open and decode it, or say what is wrong
strict, damage                                   let no damage pass
pixels, content, thumbnail                       what is seen
manifest, cuts                                   a row for each image; where rows are cut into files
"""
