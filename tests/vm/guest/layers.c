/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest's program that does to the root what a plain file system allows:
 *
 *     layers rename OLD NEW   rename(2), and nothing else if that fails
 *     layers numbers FOLDER   readdir(3) and stat(2) agree on inode numbers,
 *                             in the folder and all below
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static unsigned long files, wrong;

static void look(const char *folder)
{
    DIR *dir = opendir(folder);
    const struct dirent *entry;
    char path[4096];
    struct stat st;

    while (dir && (entry = readdir(dir))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        if (lstat(path, &st) < 0)
            continue;
        files++;
        if (entry->d_ino != st.st_ino && wrong++ == 0)
            printf("%s: %lu != %lu\n", path, (unsigned long)entry->d_ino,
                   (unsigned long)st.st_ino);
        if (S_ISDIR(st.st_mode))
            look(path);
    }
    if (dir)
        closedir(dir);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "rename") == 0) {
        if (rename(argv[2], argv[3]) < 0) {
            printf("rename: %s\n", strerror(errno));
            return 1;
        }
        return 0;
    }
    if (argc != 3 || strcmp(argv[1], "numbers") != 0)
        return 2;
    look(argv[2]);
    printf("%lu wrong of %s\n", wrong, files > 0 ? "some" : "none");
    return wrong > 0;
}
